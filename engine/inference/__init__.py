"""The threads that models run on, and the weights they run from."""

import os

# llama.cpp and CTranslate2 meet at OpenMP barriers hundreds of times for each token. Spinning there for
# long, as is the default, makes two models on the same cores starve each other; a short spin does not.
# Read once when the first of them is loaded, so it is set here.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
