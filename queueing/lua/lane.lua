-- A lane: a list of entries, whose head stays where it is until it is settled. A lane with entries is in exactly one of
-- READY, DUE or a process's `held` hash; an empty one in none. So a push that finds it empty is the one that readies it.
-- An entry: "id track accepted\n" and the element. track: t or -; accepted: ms.

-- A lane that was empty counts as served this long ago: it goes before the busy ones, but not before those that have
-- waited for longer than this, so that a stream of new lanes starves nobody.
local FRESH_MS = 60000

local function parse(entry)
  local id, track, accepted, at = string.match(entry, '^(%S+) (%S) (%d+)\n()')
  return { id = id, tracked = track == 't', accepted = tonumber(accepted), element = string.sub(entry, at) }
end

local function push(lane, entry)
  if redis.call('RPUSH', lane_key(lane), entry) == 1 then
    redis.call('ZADD', READY, now - FRESH_MS, lane)
  end
end

-- After its head left or was given back: the lane waits for its turn again, if anything is in it.
local function requeue(lane)
  if redis.call('EXISTS', lane_key(lane)) == 1 then
    redis.call('ZADD', READY, now, lane)
  end
end

local function head(lane)
  local entry = redis.call('LINDEX', lane_key(lane), 0)
  return entry and parse(entry)
end

local function remove_head(lane)
  redis.call('HDEL', TRIES, lane)
  return parse(redis.call('LPOP', lane_key(lane)))
end

-- The tries of a lane's head: "attempts takeovers\n", then a line for each: "ms reason error", tab-separated.
local TRIES_KEPT = 4000 -- bytes; the oldest lines go first

local function tries(lane)
  local kept = redis.call('HGET', TRIES, lane)
  if not kept then return 0, 0, '' end
  local attempts, takeovers, lines = string.match(kept, '^(%d+) (%d+)\n(.*)$')
  return tonumber(attempts), tonumber(takeovers), lines
end

local function note_try(lane, counts, taken_over, reason, error)
  local attempts, takeovers, lines = tries(lane)
  lines = lines .. now .. '\t' .. reason .. '\t' .. error .. '\n'
  while #lines > TRIES_KEPT and string.find(lines, '\n.') do
    lines = string.sub(lines, string.find(lines, '\n', 1, true) + 1)
  end
  attempts, takeovers = attempts + counts, takeovers + taken_over
  redis.call('HSET', TRIES, lane, attempts .. ' ' .. takeovers .. '\n' .. lines)
  return attempts
end

-- The status of a tracked message: fields in pairs. ttl: ms.
local function set_status(id, ttl, ...)
  redis.call('HSET', status_key(id), ...)
  redis.call('PEXPIRE', status_key(id), ttl)
end

-- A message that has not ended keeps its status for this long, whatever the setting for those that have.
local OPEN_STATUS_MS = 30 * 24 * 3600 * 1000
