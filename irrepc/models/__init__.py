"""Networks, each readable beside its paper, and the potential that differentiates them."""
