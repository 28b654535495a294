"""What is derived from a traced prompt, one kind of node a module.

Every function takes `pattern_lens.tracing.registry.At`, one layer of one batch, and gives dims (prompt, ...). Effects are
in units of the objective (of the traced node's value, if a node is traced), magnitudes in units of the stream.

Sources: Mossing et al. 2024, Transformer Debugger (write magnitude, direct effect and estimated total effect of a node);
Nanda 2023, Attribution Patching (activation x gradient, first order in the ablation of a node to zero); Elhage et al.
2021, A Mathematical Framework for Transformer Circuits (the stream as a sum of what is written to it).
"""
