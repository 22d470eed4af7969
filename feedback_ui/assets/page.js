// Gradio names the browser's language as the page's, also where the texts are not in it: a screen reader would speak
// English with the sounds of another language.
document.documentElement.lang = navigator.language.split("-")[0] === "ko" ? "ko" : "en";
