"""Files: atomic writes, fingerprints, locked work directories, shards, records, provenance."""
