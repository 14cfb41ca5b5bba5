"""What is declared of products against what the service does with it."""

import math

import numpy as np
import pytest

from services.core.layout import series_chunks
from services.core.product import Product
from services.products.gwsa.declaration import PRODUCT as GWSA
from services.products.xco2_global.declaration import PRODUCT as XCO2
from tiler.fast_series import MOST_FETCHED, MOST_GETS


@pytest.mark.parametrize("product", [GWSA, XCO2], ids=lambda product: product.id)
def test_a_place_of_twenty_years_is_one_read_of_each_quantity_by_the_event_loop(product: Product) -> None:
    chunk, _ = series_chunks(product)
    assert chunk[0] == 240
    decoded = sum(math.prod(chunk) * np.dtype(quantity.dtype).itemsize for quantity in product.quantities)
    assert decoded <= MOST_FETCHED
    assert len(product.quantities) <= MOST_GETS
