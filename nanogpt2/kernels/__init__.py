"""Room of the fast kernels: attention on every machine, the loss, fp8 products.

Chapter: windows.
"""
