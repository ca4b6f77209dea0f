"""What stands above the metadata store's port: ids, times, promotion, verification."""
