-- → the priority of the message of this lane that is in flight, or nil
local function in_flight(lane)
  for _, process in ipairs(redis.call('ZRANGE', PROCESSES, 0, -1)) do
    local lease = redis.call('HGET', held_key(process), lane)
    if lease then return string.match(lease, '^%d+ %d+ (%a)') end
  end
end
