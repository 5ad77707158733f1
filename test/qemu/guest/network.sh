# shellcheck shell=sh
# What the scenarios of network.go do in the machine.

# network_state prints what must be as in a boot without unlock. The queue of a card that
# was up once stays.
network_state() {
	{
		ip -d addr | sed 's/ qdisc [^ ]*//'
		ip rule
		ip route show table all
		ip -6 route show table all
		grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/neigh /proc/sys/net/ipv6/neigh | sort
	} | sed 's/^/state: /'
	ip -d addr >/dev/null # it must be there
}

# card_named NAME: what was done to a card is undone under its new name
card_named() { test -d "/sys/class/net/$1"; }

# own_network_up: the image's own network is as the image has set it up, and nothing else is up
own_network_up() {
	ip -o addr show dev eth0 | grep ' 10\.9\.9\.9/24 '
	test "$(ip route)" = "default via 10.9.9.1 dev eth0 
10.9.9.0/24 dev eth0 proto kernel scope link src 10.9.9.9 "
	test $(($(cat /sys/class/net/eth1/flags) & 1)) = 0
	if ip -o addr show dev eth1 | grep inet; then exit 1; fi
}
