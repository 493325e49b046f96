#!lua flags=allow-oom
-- beat: a publisher's coverage ("all my changes that took effect before this position are announced", true for ever).
--   ARGV: epoch | publisher | coverage | nonce | keep (entries) | threshold (heartbeats without a beat: lost)
--   reply: position
-- The lead's beat appends a heartbeat: k=w, w=watermark, s=position of this beat, x=lost publishers, u=1 if uncovered,
-- l=lead. Who has beaten twice with no heartbeat in between becomes the lead: no clock is needed to notice that the
-- lead is gone, and there is one heartbeat an interval however many beat.
-- Cost of a heartbeat: two fields per publisher.
local epoch, publisher, coverage, nonce, keep = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local threshold = tonumber(ARGV[6])
local refusal = foreign(epoch) or unknown(publisher)
if refusal then
  return refusal
end
local position = give_position()
redis.call('HSET', HUB, 'c:' .. publisher, int(math.max(number('c:' .. publisher), coverage)))
redis.call('HINCRBY', HUB, 'b:' .. publisher, 1)

local lead, mark = field('lead'), number('mark')
local beaten_before = field('l:' .. publisher) == int(mark)
redis.call('HSET', HUB, 'l:' .. publisher, int(mark))
if lead and lead ~= publisher and not beaten_before then
  return position
end

mark = redis.call('HINCRBY', HUB, 'mark', 1)
redis.call('HSET', HUB, 'lead', publisher, 'l:' .. publisher, int(mark))
local watermark, lost, uncovered = position, {}, '0'
local function count(ids, fields)
  local values = redis.call('HMGET', HUB, unpack(fields))
  for i, id in ipairs(ids) do
    if id == 'uncovered' then
      uncovered = '1'
    else
      watermark = math.min(watermark, tonumber(values[2 * i - 1]))
      if mark - (tonumber(values[2 * i] or '-1e9')) > threshold and #lost < 100 then
        lost[#lost + 1] = id
      end
    end
  end
end
local ids, fields = {}, {}
for _, id in ipairs(members()) do
  ids[#ids + 1] = id
  fields[#fields + 1] = 'c:' .. id
  fields[#fields + 1] = 'l:' .. id
  if #ids == 500 then -- Lua unpacks some thousands of values at most
    count(ids, fields)
    ids, fields = {}, {}
  end
end
if #ids > 0 then
  count(ids, fields)
end
append(epoch, nonce, keep, 'w', position, 'w', int(watermark), 'x', table.concat(lost, ' '), 'u', uncovered, 'l', publisher)
return position
