"""From documents to batches: corpus, shards, tokenizer, packing, loader. Chapter: data."""
