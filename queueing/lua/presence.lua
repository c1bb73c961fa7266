-- What kills the processes that hold it. MOST: take-overs after which a message is dead; one of a process in which it ran
-- alone counts for all of them. SOON_MS: what has been held for longer is not suspected of killing the process.
local poison = { MOST = 10, SOON_MS = 10000 }

-- Who is alive. PROCESSES: incarnation → the time (ms) at which it is presumed dead, unless it is heard before.

-- If nobody was heard for two heartbeats, it was the server that was away (or all were stopped), and silence says nothing
-- about anyone: every lease gets one more lease time before any take-over.
local function forgive_silence(lease_ms, heartbeat_ms)
  local latest = redis.call('ZRANGE', PROCESSES, -1, -1, 'WITHSCORES')
  if not latest[2] or now - (latest[2] - lease_ms) <= 2 * heartbeat_ms then return end
  for _, process in ipairs(redis.call('ZRANGE', PROCESSES, 0, -1)) do
    redis.call('ZADD', PROCESSES, now + lease_ms, process)
  end
end

local function forget(process)
  redis.call('DEL', held_key(process))
  redis.call('ZREM', PROCESSES, process)
  redis.call('SREM', IDLE, process)
end

-- The lanes in a `held` hash, as lane → { token, call, priority, granted (ms), account }; and the fields that begin with
-- #, which are about the process itself.
local function leases_of(held)
  local leases, about = {}, {}
  for i = 1, #held, 2 do
    if string.sub(held[i], 1, 1) == '#' then
      about[held[i]] = held[i + 1]
    else
      local token, call, priority, granted, paid = string.match(held[i + 1], '^(%d+) (%d+) (%a) (%d+)(.*)$')
      leases[held[i]] = {
        token = token, call = tonumber(call), priority = priority, granted = granted,
        account = account_of(bot_of_lane(held[i]), paid ~= ''),
      }
    end
  end
  return leases, about
end

-- Of a process that ends: what was set aside for it, and it does not hold, goes back.
local function give_back_alone(leases, about)
  local lane = about['#alone']
  if lane and not leases[lane] then place(lane, now) end
end

-- It was not sent, and goes back to the head of its lane.
local function give_back(lane, lease)
  local message = head(lease.priority, lane)
  if message.tracked then set_status(message.id, OPEN_STATUS_MS, 'status', 'pending') end
  end_probe(bot_of_lane(lane), lane)
  place(lane, now)
end
