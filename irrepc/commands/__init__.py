"""Floor 9: what the verbs of the command line do; cli.py reads their arguments."""
