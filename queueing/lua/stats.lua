#!lua flags=no-writes
-- stats: how many messages are where. Looks at no more than `sample` lanes of each kind, and extrapolates beyond.
--
-- KEYS  1 front door
-- ARGV  1 sample
-- Returns { at the doors, in lanes, waiting for a time, dead, accepted of the oldest in ms or -1, sent ever, now,
--           { incarnation, deadline ms, { its held hash } … } }
-- include: keys, lane

local sample = tonumber(ARGV[1])
local oldest = -1

local function look(lanes)
  local messages = 0
  for _, lane in ipairs(lanes) do
    local first = head(lane)
    if first and (oldest < 0 or first.accepted < oldest) then oldest = first.accepted end
    messages = messages + redis.call('LLEN', lane_key(lane))
  end
  return messages
end

local lanes_due = redis.call('ZCARD', DUE)
local due = look(redis.call('ZRANGE', DUE, 0, sample - 1))
if lanes_due > sample then due = math.floor(due * lanes_due / sample) end
look(redis.call('ZRANGE', READY, 0, sample - 1))

local processes = {}
local known = redis.call('ZRANGE', PROCESSES, 0, -1, 'WITHSCORES')
for i = 1, #known, 2 do
  processes[#processes + 1] = known[i]
  processes[#processes + 1] = known[i + 1]
  processes[#processes + 1] = redis.call('HGETALL', held_key(known[i]))
end

return {
  redis.call('LLEN', FRONT) + redis.call('LLEN', HANDOFF),
  tonumber(redis.call('HGET', TOTALS, 'laned') or 0),
  due,
  redis.call('ZCARD', DEAD_INDEX),
  oldest,
  tonumber(redis.call('HGET', TOTALS, 'sent') or 0),
  now,
  processes,
}
