"""Read the code: one coupling as formula, as equations, after each pass with its cost, and as emitted text."""

from irrepc.commands.show import show

REQUEST = "1o x 1o -> 1e"  # the cross product, as a path of a network sees it

CHAPTERS = (
    ("The formula: a and b are vectors, the result is their cross product over √6.", "formula"),
    ("The equations of the intermediate representation: exact coefficients, one line for each output.", "ir"),
    ("The passes. Sums that do not depend on the channel u leave the channel loop; count the operations.", "passes"),
    ("The torch text: what is imported and run. Every line says which components it couples.", "torch"),
    ("The same as a loop over rows for numba.", "numba"),
)

for title, view in CHAPTERS:
    print(f"\n── {title}\n")
    if view in ("formula", "ir", "passes"):
        print(show(REQUEST, view))
    else:
        print(show(REQUEST, view, order=0))

print("\n── Its derivative, made from the equations above by one function, as torch text.\n")
print(show(REQUEST, "torch", order=1))
print("\nThe same on the command line: irrepc show '1o x 1o -> 1e' --as passes")
