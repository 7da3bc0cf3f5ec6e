"""Methods of merging, one module each: pure functions on the tensors of one layer.

A method is named in :mod:`pipelines.configs.merge_methods`, where its entry says which of these its module has.
``terms`` are weights and changes: the fine-tuned one and the safe one, or the fine-tuned one alone where the method
takes no safe change. ``density`` and ``direction`` are arguments of the methods whose entries say so.

``on_dense(terms, density, generator, direction)`` gives a change as a float32 matrix. The changes are float32 matrices
``[out, in]`` (any shape in full models without criterion), which may be overwritten. ``direction`` are the float32 rows
of V in blocks, and ``generator`` is the source of all that is random.

``on_factors(terms, scaling, dtype, density, direction)`` gives the same as low-rank factors of that scaling and dtype,
or None where factors cannot hold it; nothing may be overwritten. ``direction`` is the projection of the fine-tuned B.

``on_weights(finetuned, safe, weights)`` gives float32 rows of a full model from those of two, where the weights sum to
1 and the base cancels.
"""
