"""The sites of TCCON: their two letters, long names and places."""

import re

_SITES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ae": ("Ascension Island", ("ascension",)),
    "an": ("Anmyeondo, South Korea", ("anmeyondo", "anmyeondo")),
    "bi": ("Bialystok, Poland", ("bialystok",)),
    "br": ("Bremen, Germany", ("bremen",)),
    "bu": ("Burgos, Philippines", ("burgos",)),
    "ci": ("Pasadena, California, USA", ("pasadena", "caltech")),
    "db": ("Darwin, Australia", ("darwin",)),
    "df": ("Edwards, California, USA", ("edwards", "dryden", "armstrong")),
    "et": ("East Trout Lake, Canada", ("easttroutlake",)),
    "eu": ("Eureka, Canada", ("eureka",)),
    "fc": ("Four Corners, New Mexico, USA", ("fourcorners",)),
    "gm": ("Garmisch, Germany", ("garmisch",)),
    "hf": ("Hefei, China", ("hefei",)),
    "hw": ("Harwell, UK", ("harwell",)),
    "if": ("Indianapolis, Indiana, USA", ("indianapolis",)),
    "iz": ("Izana, Tenerife, Spain", ("izana",)),
    "jc": ("JPL, California, USA", ("jpl01",)),
    "jf": ("JPL, California, USA", ("jpl02",)),
    "js": ("Saga, Japan", ("saga",)),
    "ka": ("Karlsruhe, Germany", ("karlsruhe",)),
    "lh": ("Lauder, New Zealand", ("lauder01",)),
    "ll": ("Lauder, New Zealand", ("lauder02",)),
    "lr": ("Lauder, New Zealand", ("lauder03",)),
    "ma": ("Manaus, Brazil", ("manaus",)),
    "ni": ("Nicosia, Cyprus", ("nicosia",)),
    "oc": ("Lamont, Oklahoma, USA", ("lamont",)),
    "or": ("Orleans, France", ("orleans",)),
    "pa": ("Park Falls, Wisconsin, USA", ("parkfalls",)),
    "pr": ("Paris, France", ("paris",)),
    "ra": ("Reunion Island", ("reunion",)),
    "rj": ("Rikubetsu, Japan", ("rikubetsu",)),
    "so": ("Sodankyla, Finland", ("sodankyla",)),
    "sp": ("Ny Alesund, Svalbard", ("nyalesund", "spitsbergen")),
    "tk": ("Tsukuba, Japan", ("tsukuba",)),
    "wg": ("Wollongong, Australia", ("wollongong",)),
    "xh": ("Xianghe, China", ("xianghe",)),
    "zs": ("Zugspitze, Germany", ("zugspitze",)),
}
"""Place and long names of each; names with a number are of one instrument only. One instrument of Anmyeondo is spelled
``anmeyondo01`` by TCCON itself."""

_LONG = {name: site for site, (_, names) in _SITES.items() for name in names}


def site(long_name: str) -> str | None:
    """The two letters of a long name, as ``parkfalls01``; None where it is not known."""
    lower = long_name.strip().lower()
    return _LONG.get(lower) or _LONG.get(re.sub(r"[0-9]+$", "", lower))


def place(letters: str) -> str | None:
    """Where a site lies; None where it is not known."""
    found = _SITES.get(letters)
    return found[0] if found else None
