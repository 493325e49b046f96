-- Common part of all scripts. Fields of the hash KEYS[1]:
--   epoch, server (run_id), n (counter), flush, floor, seq (sequence of the newest entry), last (its id)
--   mark (number of heartbeats so far), lead (whose beats append them)
--   publishers (ids, separated by spaces), c:<id> coverage, b:<id> beats, l:<id> `mark` at the last beat
--   d:<id> open doubts of a publisher (JSON: write -> tags), q:<tag> number of open doubts that name the tag
--   s:<tag> stamp of the tag's last change
-- Numbers stay below 2^53, and are written by %d: a plain conversion rounds above 10^14.
local HUB, STREAM = KEYS[1], KEYS[2]

local function int(number)
  return string.format('%d', number)
end

local function field(name)
  return redis.call('HGET', HUB, name)
end

local function number(name)
  return tonumber(redis.call('HGET', HUB, name) or 0)
end

local function foreign(epoch)
  if epoch ~= '' and field('epoch') == epoch then
    return nil
  end
  return redis.error_reply('FOREIGNEPOCH this epoch is over: subscribe again')
end

local function unknown(publisher)
  if redis.call('HEXISTS', HUB, 'c:' .. publisher) == 1 then
    return nil
  end
  return redis.error_reply('UNKNOWNPUBLISHER not a member: join again')
end

local function give_position()
  return redis.call('HINCRBY', HUB, 'n', 1)
end

-- Stamps live as long as their entry: the entry that makes room takes the stamps that are still its own along and
-- leaves the floor behind. So memory is bounded by the stream's length, and forgetting costs one entry at a time.
local function make_room(keep)
  local over = redis.call('XLEN', STREAM) - keep
  if over <= 0 then
    return
  end
  for _, old in ipairs(redis.call('XRANGE', STREAM, '-', '+', 'COUNT', math.min(over, 64))) do
    local values = {}
    for i = 1, #old[2], 2 do
      values[old[2][i]] = old[2][i + 1]
    end
    if values.t then
      for _, tag in ipairs(cjson.decode(values.t)) do
        if field('s:' .. tag) == values.s then
          redis.call('HDEL', HUB, 's:' .. tag)
          redis.call('HSET', HUB, 'floor', int(math.max(number('floor'), tonumber(values.s))))
        end
      end
    end
    redis.call('XDEL', STREAM, old[1])
  end
end

-- Appends an entry; `p` is the id of the one before, so that a reader notices whatever it missed.
local function append(epoch, nonce, keep, kind, stamp, ...)
  make_room(tonumber(keep) - 1)
  local id = int(redis.call('HINCRBY', HUB, 'seq', 1)) .. '-' .. nonce
  redis.call('XADD', STREAM, id, 'e', epoch, 'p', field('last'), 'k', kind, 's', int(stamp), ...)
  redis.call('HSET', HUB, 'last', id)
  return id
end

local function stamp_tags(tags, stamp)
  for _, tag in ipairs(tags) do
    if tag == '*' then
      redis.call('HSET', HUB, 'flush', int(stamp))
    else
      redis.call('HSET', HUB, 's:' .. tag, int(stamp))
    end
  end
end

-- Whether something with these tags that contains every change up to `includes` was hit by none of them, and is not
-- in doubt. `own`: tags of a doubt that does not count (the write's own).
local function usable(tags, includes, own)
  local names = { 'flush', 'floor', 'q:*' }
  for _, tag in ipairs(tags) do
    names[#names + 1] = 's:' .. tag
    names[#names + 1] = 'q:' .. tag
  end
  local values = redis.call('HMGET', HUB, unpack(names))
  if tonumber(values[1] or 0) > includes or tonumber(values[2] or 0) > includes then
    return false
  end
  local doubted = { ['*'] = tonumber(values[3] or 0) }
  for i, tag in ipairs(tags) do
    if tonumber(values[2 * i + 2] or 0) > includes then
      return false
    end
    doubted[tag] = tonumber(values[2 * i + 3] or 0)
  end
  for _, tag in ipairs(own or {}) do
    if doubted[tag] then
      doubted[tag] = doubted[tag] - 1
    end
  end
  for _, count in pairs(doubted) do
    if count > 0 then
      return false
    end
  end
  return true
end

local function doubts_of(publisher)
  local text = field('d:' .. publisher)
  return text and cjson.decode(text) or {}
end

local function keep_doubts(publisher, doubts)
  if next(doubts) == nil then
    redis.call('HDEL', HUB, 'd:' .. publisher)
  else
    redis.call('HSET', HUB, 'd:' .. publisher, cjson.encode(doubts))
  end
end

local function count_doubt(tags, by)
  for _, tag in ipairs(tags) do
    if redis.call('HINCRBY', HUB, 'q:' .. tag, by) <= 0 then
      redis.call('HDEL', HUB, 'q:' .. tag)
    end
  end
end

local function end_doubt(publisher, write)
  local doubts = doubts_of(publisher)
  if doubts[write] then
    count_doubt(doubts[write], -1)
    doubts[write] = nil
    keep_doubts(publisher, doubts)
  end
end

local function members()
  local ids = {}
  for id in string.gmatch(field('publishers') or '', '%S+') do
    ids[#ids + 1] = id
  end
  return ids
end

local function enter(publisher, coverage)
  if redis.call('HEXISTS', HUB, 'c:' .. publisher) == 0 then
    local ids = members()
    ids[#ids + 1] = publisher
    redis.call('HSET', HUB, 'publishers', table.concat(ids, ' '), 'b:' .. publisher, '0')
  end
  redis.call('HSET', HUB, 'c:' .. publisher, int(coverage))
end

local function remove(publisher)
  local rest = {}
  for _, id in ipairs(members()) do
    if id ~= publisher then
      rest[#rest + 1] = id
    end
  end
  redis.call('HSET', HUB, 'publishers', table.concat(rest, ' '))
  redis.call('HDEL', HUB, 'c:' .. publisher, 'b:' .. publisher, 'l:' .. publisher, 'd:' .. publisher)
  if field('lead') == publisher then
    redis.call('HDEL', HUB, 'lead')
  end
end
