/* Reads atoms and pairs from standard input, evaluates the model it is linked with, prints all results. */

#include "irrepc_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static double number(void)
{
    double value;
    if (scanf("%lf", &value) != 1)
        exit(2);
    return value;
}

int main(void)
{
    int64_t atoms = (int64_t)number(), pairs = (int64_t)number();
    int *species = malloc(sizeof *species * atoms), *neighbours = malloc(sizeof *neighbours * pairs);
    int64_t *first = malloc(sizeof *first * (atoms + 1));
    double *positions = malloc(sizeof *positions * 3 * atoms), *shifts = malloc(sizeof *shifts * 3 * pairs);
    double *energies = malloc(sizeof *energies * atoms), *forces = malloc(sizeof *forces * 3 * atoms), virial[9];
    for (int64_t i = 0; i < atoms; i++)
        species[i] = (int)number();
    for (int64_t i = 0; i < 3 * atoms; i++)
        positions[i] = number();
    for (int64_t i = 0; i <= atoms; i++)
        first[i] = (int64_t)number();
    for (int64_t p = 0; p < pairs; p++)
        neighbours[p] = (int)number();
    for (int64_t p = 0; p < 3 * pairs; p++)
        shifts[p] = number();

    irrepc_model *model = irrepc_model_open();
    if (irrepc_model_interface() != IRREPC_MODEL_INTERFACE || !model) {
        fprintf(stderr, "%s\n", irrepc_model_message(model));
        return 1;
    }
    if (irrepc_model_evaluate(model, atoms, atoms, species, positions, first, neighbours, shifts, energies, forces,
                              virial, NULL) != IRREPC_OK) {
        fprintf(stderr, "%s\n", irrepc_model_message(model));
        return 1;
    }
    for (int64_t i = 0; i < atoms; i++)
        printf("%.17g\n", energies[i]);
    for (int64_t i = 0; i < 3 * atoms; i++)
        printf("%.17g\n", forces[i]);
    for (int k = 0; k < 9; k++)
        printf("%.17g\n", virial[k]);
    irrepc_model_close(model);
    return 0;
}
