"""The photographic bundles: a published package's numbers, read at the user's request, in graphs that ship without any.

The package's terms are not settled, so none of its weights, and nothing that is made from them, is part of ohlora.
"""
