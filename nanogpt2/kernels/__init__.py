"""Room of the kernels: attention through windows, the loss, fp8 products.

``windows`` and ``cross_entropy`` hold the definitions; ``attention`` and ``backends`` choose what
runs in their place, and ``fast`` what a processor gains by. Chapter: windows.
"""
