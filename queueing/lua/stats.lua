#!lua flags=no-writes
-- stats: how many messages are where. Looks at no more than `sample` lanes of each kind, and extrapolates beyond.
--
-- KEYS  1 front door
-- ARGV  1 sample
-- Returns { at the doors, in lanes, waiting for a time, dead, accepted of the oldest in ms or -1, sent ever, now,
--           { incarnation, ms until it is presumed dead, { its held hash } … }, scheduled }
-- include: keys, aliases, limits, open, parents, lane

local sample = tonumber(ARGV[1])
local oldest = -1

local function messages_of(lane)
  local messages = 0
  for _, priority in ipairs(PRIORITIES) do
    local first = head(priority, lane)
    if first then
      messages = messages + redis.call('LLEN', list_key(priority, lane))
      if oldest < 0 or first.accepted < oldest then oldest = first.accepted end
    end
  end
  return messages
end

-- → messages in the lanes of a sorted set, as far as `most` of them tell; but for those that are counted elsewhere
local function messages_in(key, most, elsewhere)
  local lanes, messages = redis.call('ZRANGE', key, 0, most - 1), 0
  for _, lane in ipairs(lanes) do
    local here = messages_of(lane)
    if not elsewhere or not elsewhere(lane) then messages = messages + here end
  end
  local all = #lanes < most and #lanes or redis.call('ZCARD', key)
  return #lanes == 0 and 0 or math.floor(messages * all / #lanes)
end

-- → messages in the ready lanes of the accounts of a sorted set; of many, fewer lanes of each are looked at
local function ready_in(key)
  local accounts, messages = redis.call('ZRANGE', key, 0, sample - 1), 0
  local most = math.max(5, math.floor(sample / math.max(1, #accounts)))
  for _, account in ipairs(accounts) do
    for _, priority in ipairs(PRIORITIES) do messages = messages + messages_in(ready_key(priority, account), most) end
  end
  return messages
end

-- Ready for one priority while a retry of a higher one is due later: then it is in DUE as well, and counted as ready.
local function is_ready(lane)
  for _, priority in ipairs(PRIORITIES) do
    if redis.call('ZSCORE', ready_key(priority, bot_of_lane(lane)), lane) then return true end
  end
end

-- A bot that is over its limit or paused makes all its lanes wait.
local waiting = messages_in(DUE, sample, is_ready) + ready_in(BOTS_DUE)
ready_in(BOTS) -- for the oldest

local processes = {}
local known = redis.call('ZRANGE', PROCESSES, 0, -1, 'WITHSCORES')
for i = 1, #known, 2 do
  processes[#processes + 1] = known[i]
  processes[#processes + 1] = known[i + 1] - now
  processes[#processes + 1] = redis.call('HGETALL', held_key(known[i]))
end

-- A bell is no message. It is rung where nothing else stands, so it is the first.
local function at_door(key)
  return redis.call('LLEN', key) - (redis.call('LINDEX', key, 0) == BELL and 1 or 0)
end

local laned = 0
for _, field in ipairs(redis.call('HMGET', TOTALS, 'laned:i', 'laned:n', 'laned:b')) do
  laned = laned + tonumber(field or 0)
end

return {
  at_door(FRONT) + at_door(HANDOFF) + tonumber(redis.call('HGET', TOTALS, 'doors') or 0),
  laned,
  waiting,
  redis.call('ZCARD', DEAD_INDEX),
  oldest,
  tonumber(redis.call('HGET', TOTALS, 'sent') or 0),
  wall,
  processes,
  redis.call('ZCARD', SCHEDULED),
}
