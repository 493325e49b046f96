#!lua flags=allow-oom
-- sample: a position.
--   ARGV: epoch
--   reply: position
return foreign(ARGV[1]) or give_position()
