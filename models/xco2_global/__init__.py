"""The attention network of global XCO2: tables of sequences in, departures from a background and their spread out."""
