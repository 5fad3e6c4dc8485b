"""The tests of irrepc; the folders mirror those of the package."""
