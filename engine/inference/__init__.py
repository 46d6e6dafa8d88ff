"""The threads that models run on, and the weights they run from."""
