from apiserver import apiserver as apiserver
