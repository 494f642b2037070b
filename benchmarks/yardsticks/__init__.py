"""The yardsticks, each written as its own documentation recommends, and none slower than it has to be."""
