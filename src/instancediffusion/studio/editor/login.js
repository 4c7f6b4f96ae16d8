// Sends name and password to the server; its cookie is what opens the studio.

const form = document.querySelector("#login");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const response = await fetch("/login", { method: "POST", body: new URLSearchParams(new FormData(form)) });
  if (response.ok) location.reload();
  else document.querySelector("#wrong").textContent = response.status === 400 ? "Name or password is wrong." : `The server answered ${response.status}.`;
});
