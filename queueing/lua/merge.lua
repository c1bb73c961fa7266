-- alias: two names of a chat are one from now on. Their lanes are merged by order of acceptance, a bounded number of
-- entries a call, and not before neither is in flight.

local alias, merge_lanes
do -- a script has room for 200 local names
  local MERGE_MOST = 100 -- entries that one call moves
  local LOG_MOST = 1000  -- departures of a log that goes into another

  -- What holds the one lane holds the other.
  local function move_pauses(from, to)
    local by_hand = redis.call('HGET', PAUSED, 'hand ' .. from)
    if by_hand then redis.call('HSETNX', PAUSED, 'hand ' .. to, by_hand) end
    local till, reason = string.match(redis.call('HGET', PAUSED, from) or '', '^(%d+) (.*)$')
    if till then pause(to, tonumber(till), reason) end
    redis.call('HDEL', PAUSED, from, 'hand ' .. from)
    any_paused = redis.call('EXISTS', PAUSED) == 1
  end

  -- One that is under way already comes last now: whatever was said since, it has the last word.
  local function begin(merge)
    for i = #merges, 1, -1 do
      if merges[i] == merge then table.remove(merges, i) end
    end
    merges[#merges + 1] = merge
    if redis.call('ZADD', MERGING, redis.call('HINCRBY', TOTALS, 'ids', 1), merge) == 1 then note_merge(merge, 1) end
  end

  -- The newest word wins: what was said to be another name of `from` may turn out to be the name to use.
  function alias(from, to)
    local known = canonical(to)
    if known == from and from ~= to then forget_alias(to) else to = known end
    if from == to or canonical(from) == to then return end
    forget_alias(from)
    write_alias(from, to)
    -- Nothing of either leaves until they are one.
    for _, lane in ipairs({ from, to }) do
      redis.call('ZREM', DUE, lane)
      leave_ready(lane)
    end
    move_pauses(from, to)
    begin(from .. ' ' .. to)
  end

  local function accepted_of(entry) return entry and tonumber(string.match(entry, '^%S+ %S+ (%d+)')) end

  -- What was tried with a head is kept if it stays the head.
  local function merge_tries(priority, from, to, from_is_first)
    local mine, other = priority .. ' ' .. from, priority .. ' ' .. to
    local kept = redis.call('HGET', TRIES, mine)
    if from_is_first then redis.call('HDEL', TRIES, other) end
    if from_is_first and kept then redis.call('HSET', TRIES, other, kept) end
    if kept then redis.call('HDEL', TRIES, mine) end
  end

  -- Gathers what goes before the last of `from`, then puts it before the rest of `to`: `most` entries at most.
  -- → how many it moved
  local function merge_lists(priority, from, to, most)
    local source, target, merged = list_key(priority, from), list_key(priority, to), merged_key(priority, to)
    local a, b = redis.call('LINDEX', source, 0), redis.call('LINDEX', target, 0)
    local moved = 0
    if a and redis.call('EXISTS', merged) == 0 then
      merge_tries(priority, from, to, not b or accepted_of(a) <= accepted_of(b))
      if not b then
        redis.call('RENAME', source, target)
        return 1
      end
    end
    while a and moved < most do
      if b and accepted_of(b) < accepted_of(a) then
        redis.call('LMOVE', target, merged, 'LEFT', 'RIGHT')
        b = redis.call('LINDEX', target, 0)
      else
        redis.call('LMOVE', source, merged, 'LEFT', 'RIGHT')
        a = redis.call('LINDEX', source, 0)
      end
      moved = moved + 1
    end
    while not a and moved < most and redis.call('LMOVE', merged, target, 'RIGHT', 'LEFT') do moved = moved + 1 end
    return moved
  end

  -- The chat has one limit, whichever name it was sent to by.
  local function merge_logs(from, to)
    local source, target, limit = left_key(from), left_key(to), limit_of_chat(to)
    local most = math.min(limit.n, LOG_MOST)
    local times = most > 0 and redis.call('LRANGE', source, -most, -1) or {}
    redis.call('DEL', source)
    if #times == 0 then return end
    for _, at in ipairs(redis.call('LRANGE', target, 0, -1)) do times[#times + 1] = at end
    table.sort(times, function(a, b) return tonumber(a) < tonumber(b) end)
    redis.call('DEL', target)
    for _, at in ipairs(times) do redis.call('RPUSH', target, at) end
    redis.call('PEXPIRE', target, limit.kept)
    chats_free[to] = nil
  end

  -- What is set aside for a process is as good as in flight.
  local function lanes_in_flight()
    local flying = {}
    for _, process in ipairs(redis.call('ZRANGE', PROCESSES, 0, -1)) do
      local leases, about = leases_of(redis.call('HGETALL', held_key(process)))
      for lane in pairs(leases) do flying[lane] = true end
      if about['#alone'] then flying[about['#alone']] = true end
    end
    return flying
  end

  -- Goes on with one merge by `most` entries. → how many it moved, and whether it is done
  local function go_on(merge, most)
    local from, to = lanes_of_merge(merge)
    local moved = 0
    for _, priority in ipairs(PRIORITIES) do
      moved = moved + merge_lists(priority, from, to, most - moved)
      if moved >= most then return moved, false end
    end
    redis.call('ZREM', MERGING, merge)
    note_merge(merge, -1)
    move_pauses(from, to)
    merge_logs(from, to)
    place(to, served_at(to))
    return moved, true
  end

  -- Goes on with all that nothing in flight is in the way of. → whether there is more to do at once
  function merge_lanes()
    if not next(merges) then return false end
    local flying, busy, left, waiting = lanes_in_flight(), {}, MERGE_MOST, {}
    for _, merge in ipairs(merges) do
      local from, to = lanes_of_merge(merge)
      local done, moved = false, 0
      -- Those that were said before come first: of a chain, or of several into one lane.
      if left > 0 and not (flying[from] or flying[to] or busy[from] or busy[to]) then
        moved, done = go_on(merge, left)
        left = left - moved
      end
      if not done then
        busy[from], busy[to] = true, true
        waiting[#waiting + 1] = merge
      end
    end
    merges = waiting
    return left <= 0
  end
end
