"""Documents to batches: corpus, shards, tokenizer, packing, loader. Chapter: tokens_and_rows."""
