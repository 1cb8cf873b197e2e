"""The interface of the twisted-mtr package (PyPI, 3.2.0) over this engine: change the import line, keep the program.

    from tracerouted.twisted_mtr import errors, logger, mtr, utils

`mtr.TraceRoute` is what that package documents. `docs/library.md` says what is the same and what is not.
"""
