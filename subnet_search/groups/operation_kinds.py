"""What kinds of operations there are, by what they do to channels and to zeros; names are those of autograd's nodes."""

from __future__ import annotations

ZERO_KEEPING = frozenset(
    (
        "Relu",
        "LeakyRelu",
        "Silu",
        "Gelu",
        "Elu",
        "Selu",
        "Celu",
        "Tanh",
        "Hardtanh",
        "Hardswish",
        "Mish",
        "Neg",
        "Abs",
        "Sqrt",
        "Clone",
        "ToCopy",
        "Alias",
        "Pow",
        "Erf",
        "Sin",
        "Clamp",
        "ClampMin",
        "ClampMax",
        "NativeDropout",
        "Expand",
        "RreluWithNoise",
    )
)
"""Element-wise operations of one tensor that leave zero at zero (clamps where zero is inside, as always checked)."""

ZERO_LOSING = frozenset(
    ("Sigmoid", "Hardsigmoid", "Exp", "Softplus", "LogSigmoid", "Log", "Cos", "Rsqrt", "Reciprocal")
)
"""Element-wise operations of one tensor that turn zero into something else."""

SUMS = frozenset(("Add", "Sub", "Maximum", "Minimum", "Where"))
"""Element-wise operations of several tensors that are zero where all of them are."""

PRODUCTS = frozenset(("Mul", "Div"))
"""Element-wise operations that are zero where one operand (of a division: the first) is."""

SPATIAL = frozenset(
    (
        "MaxPool2DWithIndices",
        "AvgPool2D",
        "AdaptiveAvgPool2D",
        "AdaptiveMaxPool2D",
        "MaxPool3DWithIndices",
        "AvgPool3D",
        "AdaptiveAvgPool3D",
        "MkldnnMaxPool2D",
        "UpsampleNearest1D",
        "UpsampleNearest2D",
        "UpsampleBilinear2D",
        "UpsampleBicubic2D",
        "UpsampleBilinear2DAa",
        "ReflectionPad1D",
        "ReflectionPad2D",
        "ReplicationPad1D",
        "ReplicationPad2D",
    )
)
"""Operations on the axes after the channels."""

REDUCTIONS = frozenset(("Mean", "Sum", "Amax", "Amin"))
"""Operations that take one value over some axes."""

MOVES = frozenset(("Transpose", "Permute", "T"))
"""Operations that put the axes in another order."""

SPLITS = frozenset(("Split", "SplitWithSizes"))
"""What `split` and `chunk` do."""
