"""The products, found by looking: every folder here, and every entry point of the group ``cenote.products``.

A product package exports

- ``PRODUCT``: its declaration, a ``services.core.product.Product``;
- ``open_recipe(inputs: Path, models: Path | None) -> Recipe``: how it is computed from a directory of input files and
  one of models, None being those shipped;
- optionally ``write_sample(directory: Path, size: str, note: Callable[[str], None]) -> None``: makes a small synthetic
  set of its inputs, for ``cenote sample``;
- optionally ``train(inputs: Path, out: Path, seed: int, note, each)`` and ``export(trained: Path, out: Path, note)``:
  make its models again; ``each`` does work where the command was told to, ``each.client`` is its cluster, or None;
- optionally ``TRAINS_WITH: tuple[str, ...]``: packages that these need and rendering does not, looked for first;
- optionally ``ANALYSES: dict[str, Callable]``: analyses of published collections for ``cenote analyse``, by name; each
  makes a recipe of ``(store, dataset, *, variable, periods)`` and, if it has it as a parameter, ``inputs: Path``;
- optionally ``sample_area(size: str) -> str``: the part (W,S,E,N) that ``cenote sample`` renders as ``PRODUCT_sample``.
"""

import importlib
import importlib.metadata
import pkgutil
from types import ModuleType

from services.core.errors import DeclarationError, Refused
from services.core.product import Product

GROUP = "cenote.products"


def find() -> dict[str, ModuleType]:
    """Product id -> its package, sorted.

    Raises:
        DeclarationError: if a package's id is not its name, or two packages claim one id.
    """
    found: dict[str, ModuleType] = {}
    for info in pkgutil.iter_modules(__path__, f"{__name__}."):
        if info.ispkg:
            _add(found, info.name.rpartition(".")[2], importlib.import_module(info.name))
    for entry in importlib.metadata.entry_points(group=GROUP):
        _add(found, entry.name, entry.load())
    return dict(sorted(found.items()))


def product(name: str) -> ModuleType:
    """The package of a product.

    Raises:
        Refused: if there is none; the message names those there are.
    """
    found = find()
    if name not in found:
        raise Refused(f"there is no product {name!r}; there are {', '.join(found) or 'none'}")
    return found[name]


def _add(found: dict[str, ModuleType], name: str, module: ModuleType) -> None:
    declared = getattr(module, "PRODUCT", None)
    if not isinstance(declared, Product) or not callable(getattr(module, "open_recipe", None)):
        raise DeclarationError(f"product package {module.__name__} must export PRODUCT and open_recipe")
    if declared.id != name:
        raise DeclarationError(f"product package {module.__name__} is found as {name!r} and declares {declared.id!r}")
    if name in found:
        raise DeclarationError(f"two packages claim product {name!r}: {found[name].__name__} and {module.__name__}")
    found[name] = module
