"""Files of labelled rows in, self-describing checkpoints out; see README.md for the way through."""
