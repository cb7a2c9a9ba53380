"""Triton kernels: what serves on CUDA where no compiled kernel does.

Each module has the name of its op and a function for each of the op's operators, ``forward`` and
``backward`` unless said otherwise, with the operator's own signature. They run on CPU tensors too
under ``TRITON_INTERPRET=1``, which is how the suite tests them without a GPU.
"""
