// CUDA on the processor: what emitted kernels use of the language, for g++.
//
// Threads run one after the other.  Those of a kernel whose lanes exchange numbers run as fibres: a lane that comes to
// a shuffle waits there until all 32 lanes of its warp have come to the same one; when they cannot, the launch fails,
// as a device would hang or read nonsense.

#pragma once
#include <cstdio>
#include <memory>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))  // each call of warp_sum is a place of its own
#define __launch_bounds__(threads)
#define __align__(bytes) alignas(bytes)
#define __shared__ static  // blocks run one after the other

namespace shim {

struct Index {
    unsigned x;
};

constexpr std::size_t STACK = 1 << 20;  // without optimisation every number of a kernel has a place of its own

enum State { ready, waiting, done };

struct Lane {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state;
    double value;
    int distance;
    const void* place;  // which shuffle of the text it waits at
};

static ucontext_t scheduler;
static std::vector<Lane> lanes;
static int current = -1;  // -1: no fibres
static char message[200];
static void (*body)(void*);
static void* given;

static void enter()
{
    body(given);
    lanes[current].state = done;
    swapcontext(&lanes[current].context, &scheduler);
}

}  // namespace shim

static shim::Index threadIdx, blockIdx;

namespace shim {

__attribute__((noinline)) static double exchange(const unsigned mask, const double value, const int distance)
{
    if (current < 0 || mask != 0xffffffffu) {
        snprintf(message, sizeof message, "got a shuffle of mask %x; expected all lanes, in a kernel of warps", mask);
        return 0;
    }
    Lane& lane = lanes[current];
    lane.value = value;
    lane.distance = distance;
    lane.place = __builtin_return_address(0);
    lane.state = waiting;
    swapcontext(&lane.context, &scheduler);
    return lane.value;
}

// Let the lanes of a warp exchange if all are at the same shuffle; false if one is not there.
static bool meet(const int first)
{
    double values[32];
    for (int i = 0; i < 32; ++i) {
        const Lane& lane = lanes[first + i];
        if (lane.state != waiting || lane.place != lanes[first].place) return false;
        if (lane.distance != lanes[first].distance) return false;
        values[i] = lane.value;
    }
    for (int i = 0; i < 32; ++i) {
        Lane& lane = lanes[first + i];
        lane.value = values[i ^ lane.distance];
        lane.state = ready;
    }
    return true;
}

static void run_fibres(const int threads)
{
    lanes.resize(threads);
    for (Lane& lane : lanes) {
        if (!lane.stack) lane.stack.reset(new char[STACK]);
        lane.state = ready;
        getcontext(&lane.context);
        lane.context.uc_stack.ss_sp = lane.stack.get();
        lane.context.uc_stack.ss_size = STACK;
        lane.context.uc_link = nullptr;
        makecontext(&lane.context, enter, 0);
    }
    for (bool moving = true; moving;) {
        moving = false;
        for (current = 0; current < threads; ++current) {
            if (lanes[current].state != ready) continue;
            moving = true;
            threadIdx.x = current;
            swapcontext(&scheduler, &lanes[current].context);
        }
        for (int first = 0; first < threads; first += 32) moving = meet(first) || moving;
    }
    for (int i = 0; i < threads; ++i) {
        if (lanes[i].state == done) continue;
        snprintf(message, sizeof message, "block %u: lane %d of warp %d waits at a shuffle to which others do not come",
                 blockIdx.x, i % 32, i / 32);
    }
    current = -1;
}

template <class T> T argument(const long long value)
{
    if constexpr (std::is_pointer_v<T>) return reinterpret_cast<T>(value);
    else return static_cast<T>(value);
}

template <class... A, std::size_t... I>
const char* start(void (*kernel)(A...), const long long* values, const long long blocks, const int threads,
                  const bool fibres, std::index_sequence<I...>)
{
    auto call = [&] { kernel(argument<A>(values[I])...); };
    message[0] = 0;
    given = &call;
    body = [](void* f) { (*static_cast<decltype(call)*>(f))(); };
    for (long long block = 0; block < blocks && !message[0]; ++block) {
        blockIdx.x = block;
        if (fibres) {
            run_fibres(threads);
            continue;
        }
        for (int i = 0; i < threads; ++i) {
            threadIdx.x = i;
            call();
        }
    }
    return message;
}

template <class... A>
const char* launch(void (*kernel)(A...), const long long* values, const long long blocks, const int threads,
                   const bool fibres)
{
    return start(kernel, values, blocks, threads, fibres, std::index_sequence_for<A...>());
}

}  // namespace shim

template <class T>
__forceinline__ T __shfl_xor_sync(const unsigned mask, const T value, const int distance)
{
    return static_cast<T>(shim::exchange(mask, static_cast<double>(value), distance));
}

template <class T> __forceinline__ T atomicAdd(T* place, const T value)
{
    const T before = *place;
    *place += value;
    return before;
}

__forceinline__ void __syncwarp() { shim::exchange(0xffffffffu, 0, 0); }
