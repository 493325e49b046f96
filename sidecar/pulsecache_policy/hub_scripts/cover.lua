#!lua flags=allow-oom
-- cover: tells whether replicas without a sidecar serve the dataset (the controller's part).
--   ARGV: epoch | '1' all are covered, '0' some are not | nonce | keep (entries)
--   reply: 1 if that is new, else 0
-- While some are not, heartbeats say so and nobody uses the watermark. When the last of them is gone, what it wrote was
-- never announced: a flush (entry as in `fence`).
local epoch, covered, nonce, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local refusal = foreign(epoch)
if refusal then
  return refusal
end
local entered = redis.call('HEXISTS', HUB, 'c:uncovered') == 1
if entered == (covered == '0') then
  return 0
end
if covered == '0' then
  enter('uncovered', 0)
else
  remove('uncovered')
  local stamp = give_position()
  redis.call('HSET', HUB, 'flush', int(stamp))
  append(epoch, nonce, keep, 'f', stamp, 'r', '[]')
end
return 1
