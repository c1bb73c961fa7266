-- clock: notices when the server's clock was set, and goes on as if it had not been: nothing that is measured in `now`,
-- leases, logs, pauses, retries, ends early or late. What people see, and ask for by date, is in `wall`.

local clock_mark, keep_time
do -- a script has room for 200 local names
  local JUMP_MS = 2000

  -- What of the time since anybody was heard was no time: ms. Backward is plain. Forward is told from silence by the clock
  -- of the process that asks, which nobody sets; one that asks for the first time cannot tell.
  local function jump_of(held_key_, process_clock)
    local last = last_wall or wall
    if wall - last < -JUMP_MS then return wall - last end
    if wall - last <= JUMP_MS then return 0 end
    local then_, was = string.match(redis.call('HGET', held_key_, '#clock') or '', '^(%d+) (%d+)$')
    if not then_ then return 0 end
    local jump = (wall + skew - was) - (process_clock - then_)
    return jump > JUMP_MS and jump or 0
  end

  -- What a process keeps of its clock with each call: it and the server's without its jumps, ms. So a jump that another
  -- process noticed since is none any more.
  function clock_mark(process_clock) return process_clock .. ' ' .. text_of(wall + skew) end

  -- process_clock: ms on a clock of the process that no one sets. → ms by which the server's clock jumped
  function keep_time(held_key_, process_clock)
    local jump = jump_of(held_key_, process_clock)
    if jump ~= 0 then
      skew = skew - jump
      now = math.max(wall + skew, seen)
      count('clock_jumps', 1)
    end
    redis.call('HSET', CLOCK, 'skew', text_of(skew), 'seen', text_of(now), 'wall', text_of(wall))
    return jump
  end
end
