"""Static STAC documents beside the data, for STAC browsers; nobody decides by them."""

import logging

from services.core import layout, stac
from services.core.catalog import collection_ids, current_version
from services.core.errors import CenoteError
from services.core.store import Store

_LOG = logging.getLogger(__name__)


def refresh(store: Store, product: str) -> None:
    """Write the copy of a collection and of the catalog.

    They are advisory, so a failure is a line in the log and not of the publish.
    """
    try:
        _, version = current_version(store, product)
        links = [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
        ]
        # written with every append, so its size must not grow with the archive
        document = stac.collection(
            version, links=links, href=lambda key: "./" + key.removeprefix(f"{product}/"), times=False
        )
        store.overwrite(layout.collection_key(product), layout.canonical(document))
        store.overwrite(layout.CATALOG_KEY, layout.canonical(_catalog(list(collection_ids(store)))))
    except CenoteError as error:
        _LOG.warning("the static STAC copies of %s were not written: %s", product, error)


def _catalog(ids: list[str]) -> stac.Document:
    children = [{"rel": "child", "href": f"./{name}/collection.json", "type": "application/json"} for name in ids]
    return {
        "type": "Catalog",
        "stac_version": stac.STAC_VERSION,
        "id": "cenote",
        "description": "Raster time series for carbon and groundwater, published with cenote.",
        "links": [{"rel": "root", "href": "./catalog.json", "type": "application/json"}, *children],
    }
