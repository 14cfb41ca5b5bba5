"""Every way a model refuses, as one small tree; services turn them into their own.

ModelError
├── ModelRefused     a model or its card does not hold: digest, opset, domain, graph, golden answer
├── InputMismatch    arrays that are not what the card says a prediction takes
├── PredictionFailed the network gave no finite value where every input was valid
├── TableRefused     a training table that lacks a column, rows or a finite value
├── TrainingRefused  settings or a cluster with which nothing can be learned
└── ExportRefused    the exported graph does not answer as the network it came from
"""


class ModelError(Exception):
    """Base of everything the models raise on purpose; the message is one sentence for a person."""


class ModelRefused(ModelError, ValueError):
    """A model or its card does not hold."""


class InputMismatch(ModelError, ValueError):
    """Arrays that are not what the card says a prediction takes."""


class PredictionFailed(ModelError, ArithmeticError):
    """A network gave no finite value for a row whose inputs were all valid."""


class TableRefused(ModelError, ValueError):
    """A training table that cannot be learned from; the message names file and fact."""


class TrainingRefused(ModelError, ValueError):
    """Settings or a cluster with which nothing can be learned."""


class ExportRefused(ModelError):
    """An exported graph that does not answer as the network it came from; nothing was written."""
