/** Embeds the plain example from the origin that the address names: `/iframe/?http://127.0.0.1:1234`. */

document.querySelector("#frame").src = `${decodeURIComponent(location.search.slice(1))}/plain/`;
