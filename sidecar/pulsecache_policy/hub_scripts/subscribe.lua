#!lua flags=allow-oom
-- subscribe: the state of the dataset now; starts a new epoch where there is none, or where its end was lost.
--   ARGV: id for a new epoch | epoch of the last entry this process was told of, or '' | id of that entry, or ''
--         | epochs that this process has seen end, separated by spaces
--         | run_id of the server, or '' where it does not say (the last two may be left out)
--   reply: epoch, position, flush, floor, seq, last, open doubts (JSON: write -> tags)
-- On a server that is another than before (restarted, or failed over to) the counter leaps, farther than could have been
-- lost: positions that only the lost end had given out are not given out again. Everybody subscribes before anything
-- else on a new server, so nothing is given out before the leap.
-- Cost: one object per open doubt.
local LEAP = 4294967296

local function lost(epoch, id)
  if id == '' or field('epoch') ~= epoch then
    return false
  end
  local sequence = tonumber(string.match(id, '^%d+'))
  if sequence == 0 then
    return false
  end
  if sequence > number('seq') then
    return true
  end
  if #redis.call('XRANGE', STREAM, id, id) == 1 then
    return false
  end
  local first = redis.call('XRANGE', STREAM, '-', '+', 'COUNT', 1)[1]
  -- Older than the first: trimmed. Else another entry took its number.
  return first ~= nil and tonumber(string.match(first[1], '^%d+')) <= sequence
end

-- Back in an epoch that has ended: the hub has lost all that came after.
local function over(ended)
  for epoch in string.gmatch(ended, '%S+') do
    if field('epoch') == epoch then
      return true
    end
  end
  return false
end

local new = not field('epoch') or over(ARGV[4] or '') or lost(ARGV[2], ARGV[3])
if new then
  redis.call('DEL', HUB, STREAM)
  redis.call('HSET', HUB, 'epoch', ARGV[1], 'n', '0', 'seq', '0', 'last', '0-0', 'flush', '0', 'floor', '0', 'mark', '0')
end
local server, leap = ARGV[5] or '', 1
if server == '' or field('server') ~= server then
  redis.call('HSET', HUB, 'server', server)
  leap = LEAP
end
local position = redis.call('HINCRBY', HUB, 'n', int(leap))
if new then
  -- Publishers of the epoch before may still forward writes. Together they count as one, lost at this moment.
  enter('old-epoch', position)
end
local doubts = {}
for _, id in ipairs(members()) do
  for write, tags in pairs(doubts_of(id)) do
    doubts[write] = tags
  end
end
local text = next(doubts) == nil and '{}' or cjson.encode(doubts)
return { field('epoch'), position, number('flush'), number('floor'), number('seq'), field('last'), text }
