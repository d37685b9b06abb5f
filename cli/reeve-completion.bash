# bash completion for reeve: one process per TAB. `reeve --complete` leaves out what stands
# before the last '=' or ':', which bash takes for ends of words.
_reeve()
{
	local line=${COMP_LINE:0:COMP_POINT}

	mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" --complete "$line" "${#line}" 2>/dev/null)
	# A key waits for its value: no blank after it.
	if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:] ]]; then
		compopt -o nospace 2>/dev/null
	fi
}
complete -F _reeve reeve
