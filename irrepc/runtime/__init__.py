"""Floor 5: from emitted text to callables, with derivatives that torch knows of."""
