#!lua flags=allow-oom
-- leave: a clean stop with nothing open; refused (0) while a doubt of this publisher is open.
--   ARGV: epoch | publisher
--   reply: 1 if it is no member any more, else 0
local refusal = foreign(ARGV[1])
if refusal then
  return refusal
end
if field('d:' .. ARGV[2]) then
  return 0
end
remove(ARGV[2])
return 1
