"""Tensor field network: learn the eight tetris shapes in one orientation, know them in every other (Thomas 2018)."""

import torch

from irrepc.models import TFNClassifier, TFNConfig, complete_graph
from irrepc.nn import batch
from irrepc.nn.rotations import random_rotations

torch.manual_seed(0)
torch.set_num_threads(1)  # four points a shape gain nothing from a second one

# Four unit cubes each, by their centres. The first two are mirror images: no rotation turns one into the other.
SHAPES = {
    "chiral, left": [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0)],
    "chiral, right": [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, -1, 0)],
    "square": [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)],
    "line": [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)],
    "corner": [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)],
    "L": [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)],
    "T": [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 1)],
    "zigzag": [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0)],
}
shapes = torch.tensor(list(SHAPES.values()), dtype=torch.float32)
labels = torch.arange(len(SHAPES))
one_kind = torch.zeros(4, dtype=torch.int64)

# As in the paper: filters and features of degree 0 and 1, three layers, every pair of points an edge.
# (The authors' radial functions have ReLU; with ssp, the default, training does not get stuck on an unlucky seed.)
config = TFNConfig(species=(1,), features=("4x0e+4x1e", "4x0e+4x1e", "4x0e"), embedding=1, activation="elu")
model = TFNClassifier(config, len(SHAPES), seed=0)
print(f"TFN of {sum(weight.numel() for weight in model.parameters())} weights")

# Training: eight shapes as they stand above, nothing turned.
as_written = batch([complete_graph(points, one_kind) for points in shapes])
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
for step in range(1, 401):
    loss = torch.nn.functional.cross_entropy(model(as_written), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step}: cross entropy {loss.item():.5f}")

# Test: every shape in orientations and places it was never seen in.
TURNS = 100
rotations = random_rotations(TURNS, torch.Generator().manual_seed(1), torch.float32)
turned = torch.einsum("tij,spj->tspi", rotations, shapes) + 10 * torch.randn(TURNS, 1, 1, 3)
with torch.no_grad():
    scores = model(batch([complete_graph(points, one_kind) for points in turned.flatten(0, 1)]))
found = scores.argmax(1).view(TURNS, len(SHAPES))
right = float((found == labels).float().mean())
print(f"{TURNS} random orientations of each shape: {100 * right:.1f} % right")
assert right == 1.0

# Mirror images: reflected, either chiral shape is taken for the other, and every other shape for itself.
with torch.no_grad():
    mirrored = model(batch([complete_graph(-points, one_kind) for points in shapes])).argmax(1)
print("mirrored:", ", ".join(f"{name} -> {[*SHAPES][k]}" for name, k in zip(SHAPES, mirrored.tolist(), strict=True)))
assert mirrored.tolist() == [1, 0, 2, 3, 4, 5, 6, 7]
