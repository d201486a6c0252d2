"""Room of the fast kernels: attention on every machine, the loss, fp8 products.

Explained in the chapter on sliding windows (attention) and the speedrun chapter (loss, fp8).
"""
