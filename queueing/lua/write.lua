#!lua
-- write: fields of hashes, all or none.
--
-- KEYS  1 front door of the updates, in whose slot the hashes are
-- ARGV  five for each write, see writes.lua
-- Returns the number of each write in whose field is something else, and what there is, or false; nothing: all is stored
-- include: writes

local found = writes.conflicts(ARGV, 1, #ARGV / 5)
if #found == 0 then writes.apply(ARGV, 1, #ARGV / 5) end
return found
