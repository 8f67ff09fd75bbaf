"""What a gallery is on disk: manifest, table, versions that count, the writer's lock, checksums, upkeep, erasure."""
