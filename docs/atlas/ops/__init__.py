"""The pages of ops: lrn, conv2d and max_pool2d have files of their own, rooms makes those of all others."""
