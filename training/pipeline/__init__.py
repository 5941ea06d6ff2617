"""The documented chain from an original generator to the fine-tuned ones, stage by stage, with a cache and a report."""
